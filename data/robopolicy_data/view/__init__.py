"""A dataset as a page to look at: a folder that opens without a network, a local server, or a Rerun recording."""
