"""Images made of label maps: shapes, contrasts, bias and resolution of random scans."""
