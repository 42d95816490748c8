"""The actions of `robopolicy monitor`, a module each."""
