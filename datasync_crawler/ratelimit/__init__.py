"""When the next request may go out: answers in, decisions out.

Pure: clock, random source and answers are passed in; nothing is sent, logged or slept here.
"""
