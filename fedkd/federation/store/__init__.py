"""What all clients of a run keep, in one place: an index that SQLite keeps, and contents beside it.

`index.py` is the database, `contents.py` the files with what it points to, `state_store.py` the
two together, `stored_state.py` one client's view of them. In SQLite itself contents of half a
megabyte took twice the time: each was written into its log, and then into its pages.
"""
