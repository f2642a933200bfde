"""The commands of ``build-models``, one file each.

``SAID`` is a command's line of help, ``declare`` adds its arguments, ``run`` does it. Importing them loads nothing but
argparse; what a command needs is imported when it runs.
"""
