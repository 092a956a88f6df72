//! Positions on the earth: datums, distances, polygons. Degrees and metres; WGS-84 unless a name says otherwise.
