"""Devices: their memory, their rates, and how busy they are."""
