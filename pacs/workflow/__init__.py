"""Workflow services beside images: the worklist, performed procedure steps, workitems.

Stands between the doors and the rooms; knows no status codes and no wire.
"""
