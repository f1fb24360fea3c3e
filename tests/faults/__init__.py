"""Faults that tests inject from outside: `faults.mock` into the mock API, `faults.crashes` into the
crawler's writer.
"""
