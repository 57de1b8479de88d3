"""The dock "Learn": a bundle of one's own from images and labels in the window.

`images.pairs` and `choices` are what a user chooses, `images.staging` writes it to a folder, `child` runs the command
`napari-mamba adapt` and reads its events, `session` is the state of it all; none of these needs Qt. `host` puts
previews into the viewer, and the views draw.
"""
