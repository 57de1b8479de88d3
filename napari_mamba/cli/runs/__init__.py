"""Runs of bundles: images, one or many, into files or stores; slides, films, features, a beat, a registration."""
