"""Other projects' formats, written from our datasets."""
