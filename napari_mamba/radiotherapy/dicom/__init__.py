"""The field's own files: RTSTRUCT and RTDOSE, and the contours and references in them."""
