"""The command line and the demo. Nothing else in docmem knows tyro."""
