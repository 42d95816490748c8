"""The actions of `robopolicy data`."""
