"""One file a command: its arguments, options and help, and nothing heavy.

What a command does stands in the file of the same name in `gpusvm.cli`, imported when the command
is invoked.
"""
