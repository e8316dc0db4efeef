"""`mien label`: the faces of a large collection in parts, on the cores of one machine or on a Ray cluster.

Read them in this order; nothing here imports torch:

job        from the start to the report: plans the units, does those without a part, lists what could not be read
plan       what there is to label: lists the files and divides them into units
engines    divides the units among processes or Ray actors, and replaces those that are killed
work       how a unit is done: read, recognised, and written as a part of the table
read       how a unit's pictures and videos are read, ahead of the recognition
stores     files by path or address, and the folder that a job writes
"""

from mien.label.job import Report, label_collection

__all__ = ["Report", "label_collection"]
