//! Which variables and fields a condition reads, found in its syntax tree; unknown ones are faults.

use cel::IdedExpr;
use cel::common::ast::{EntryExpr, Expr};

use super::inputs::FIELDS;

/// What an expression reads.
#[derive(Default)]
pub struct Used {
    pub report: bool,
    pub track: bool,
    pub stream: bool,
    pub sos: bool,
    pub left_zones: bool,
    /// What the last position crossed.
    pub crossed: bool,
    /// For how long something is so.
    pub time: bool,
}

impl Used {
    /// `locals`: names bound by macros (`exists`, `all`…) around this place.
    pub fn walk<'e>(&mut self, e: &'e IdedExpr, locals: &mut Vec<&'e str>) -> Result<(), String> {
        match &e.expr {
            Expr::Unspecified | Expr::Literal(_) => Ok(()),
            Expr::Ident(name) => {
                if !locals.contains(&name.as_str()) {
                    self.variable(name)?;
                }
                Ok(())
            }
            Expr::Select(select) => {
                if let Expr::Ident(name) = &select.operand.expr
                    && !locals.contains(&name.as_str())
                {
                    self.field(name, &select.field)
                } else {
                    self.walk(&select.operand, locals)
                }
            }
            Expr::Call(call) => call
                .target
                .iter()
                .map(AsRef::as_ref)
                .chain(&call.args)
                .try_for_each(|x| self.walk(x, locals)),
            Expr::List(list) => list.elements.iter().try_for_each(|x| self.walk(x, locals)),
            Expr::Map(map) => self.entries(map.entries.iter().map(|x| &x.expr), locals),
            Expr::Struct(s) => self.entries(s.entries.iter().map(|x| &x.expr), locals),
            Expr::Comprehension(c) => {
                self.walk(&c.iter_range, locals)?;
                self.walk(&c.accu_init, locals)?;
                let outer = locals.len();
                locals.push(&c.iter_var);
                locals.extend(c.iter_var2.as_deref());
                locals.push(&c.accu_var);
                for x in [&c.loop_cond, &c.loop_step, &c.result] {
                    self.walk(x, locals)?;
                }
                locals.truncate(outer);
                Ok(())
            }
        }
    }

    fn entries<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e EntryExpr>,
        locals: &mut Vec<&'e str>,
    ) -> Result<(), String> {
        for entry in entries {
            match entry {
                EntryExpr::StructField(f) => self.walk(&f.value, locals)?,
                EntryExpr::MapEntry(m) => {
                    self.walk(&m.key, locals)?;
                    self.walk(&m.value, locals)?;
                }
            }
        }
        Ok(())
    }

    fn variable(&mut self, name: &str) -> Result<&'static [&'static str], String> {
        match name {
            "report" => self.report = true,
            "track" => self.track = true,
            "stream" => self.stream = true,
            _ => {}
        }
        FIELDS
            .iter()
            .find(|(v, _)| *v == name)
            .map(|(_, fields)| *fields)
            .ok_or_else(|| format!("there is no {name:?}; a rule reads report, track and stream"))
    }

    fn field(&mut self, name: &str, field: &str) -> Result<(), String> {
        let fields = self.variable(name)?;
        if !fields.contains(&field) {
            return Err(format!(
                "there is no {name}.{field}; {name} has {}",
                fields.join(", ")
            ));
        }
        self.sos |= (name, field) == ("report", "sos");
        self.left_zones |= (name, field) == ("track", "left_zones");
        self.crossed |=
            name == "track" && matches!(field, "entered" | "left" | "entered_cell" | "left_cell");
        self.time |= name == "track" && matches!(field, "inside_s" | "cell_s");
        Ok(())
    }
}
