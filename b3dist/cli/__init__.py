"""The `b3dist` command: parse, build the configuration, call, print."""
