"""A deployment's processes: the server's, the sites', their keys and their words."""
