"""A fleet: long-lived workers lease asset after asset until each is trained, and whatever dies is made up for."""
