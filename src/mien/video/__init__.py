"""Read pictures, videos, cameras and streams; write annotated videos.

sources.py     what a user may name (files, folders, patterns, lists, cameras, URLs), as a stream of `Source`
container.py   opening a video, with limits on memory, frame size and waiting
reader.py      frames out of a video: seeking, sampling, rotation, aspect, corrupt and truncated files
timestamps.py  a frame's number and time
writer.py      frames into a video, audio.py the sound that goes with them
live.py        live sources: the newest frame only, and playing at the video's own speed
"""
