"""The database room: the only one that imports the driver."""
