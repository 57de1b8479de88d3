"""An image on disk, as the network sees it: views, passes over all of it, and tiles read ahead."""
