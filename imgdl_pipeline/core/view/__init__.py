"""Write a page that shows a gallery."""
