"""The tests. A package, so that they can import the list of instances."""
