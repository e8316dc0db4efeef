"""mien as a service: `mien serve`. HTTP for pictures, faces and videos, a WebSocket for cameras.

`app.py` has the routes and says which functions answer them; `settings.py` has every limit with its default. The recognition
itself is one `Recognizer`, shared by all requests.
"""
