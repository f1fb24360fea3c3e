"""The statements, as package data."""
