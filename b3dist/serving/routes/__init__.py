"""The routes of the endpoint, by subject; each is a factory that takes what it answers from."""
