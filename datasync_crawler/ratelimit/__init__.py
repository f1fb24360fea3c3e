"""Decides when the next request may be sent, from the answers so far.

Pure: clock, random source and answers are passed in; nothing here sends, logs or sleeps.
"""
