"""The pages that show a scored run, or several, photo by photo; they open anywhere and fetch nothing."""
