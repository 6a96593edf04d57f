"""The front floor: the process tree, and the HTTP door of the front end."""
