"""Small widgets and colours that the windows of this plugin share."""
