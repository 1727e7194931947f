"""Fixed or publicly trained transforms of images; they know nothing of privacy, and treat each image alone."""
