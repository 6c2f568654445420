"""Published baselines, one file each; a file registers the method that its name says."""
