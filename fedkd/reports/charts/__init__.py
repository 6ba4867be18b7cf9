"""A report's charts, drawn by matplotlib as inline SVG."""
