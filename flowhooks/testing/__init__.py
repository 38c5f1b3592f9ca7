"""The plugin authors' test kit."""
