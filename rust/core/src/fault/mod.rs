//! The page-fault path: the front door.
