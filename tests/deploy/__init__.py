"""The files of deploy/: valid, consistent with the program, and run as they say."""
