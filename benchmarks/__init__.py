"""How fast docmem is, against other ways and against what the hardware allows: see README.md."""
