"""A MongoDB of the user's own that follows the directory: the documents that Open5GS then reads there.

The directory stays what is written by orders. Its changes wait in a table of the same transaction (`queue`), become
updates of documents (`plan`), and are written there (`target`) by whichever replica claims them (`worker`).
"""
