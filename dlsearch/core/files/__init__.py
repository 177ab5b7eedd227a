"""Files: owned descriptors, whole or absent, within a folder and through no link, with a digest."""
