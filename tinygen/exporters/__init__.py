"""Writers of model files: one module a format, each the inverse of an importer."""
