"""The classes of a labels layer: what they are called, what lies in them, how they are shown and corrected."""
