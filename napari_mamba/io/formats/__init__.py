"""One module per family of formats: files and stores to and from `Volume`."""
