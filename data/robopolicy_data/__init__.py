"""The zarr dataset: format, writer, reader, windows, converters."""
