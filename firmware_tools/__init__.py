"""The offline side: keys, root ceremonies, packing, the catalogue."""
