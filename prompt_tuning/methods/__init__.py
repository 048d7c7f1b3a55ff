"""Tuning methods, one file each. A gin file names the method's class; nothing here lists them."""
