"""Whether a network can be released at all: what is wrong, the line, and a fix that was tried."""
