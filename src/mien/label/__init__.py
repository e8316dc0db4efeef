"""`mien label`: the faces of a large collection in parts, on the cores of one machine or on a Ray cluster.

`sources` lists the files and reads them, `job` keeps what is done, and `engines` runs the units of a job. Nothing here imports
torch.
"""

from mien.label.job import Report, label_collection

__all__ = ["Report", "label_collection"]
