"""Formats of instruction data, one file each: every one reads its files as they are published and gives the same record."""
