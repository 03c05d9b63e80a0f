"""sarzarr."""
