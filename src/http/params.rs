//! What stands behind the question mark of a request.

use std::borrow::Cow;

/// The parameters of a request, in their order.
#[derive(Debug)]
pub(super) struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Reads a query string. A name that is not among `known` is an error, for a misspelt filter would let
    /// everything through.
    pub(super) fn parse(query: &'a str, known: &[&str]) -> Result<Params<'a>, String> {
        let all: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        match all.iter().find(|(name, _)| !known.contains(&&**name)) {
            None => Ok(Params(all)),
            Some((name, _)) if known.is_empty() => {
                Err(format!("parameter {name:?} is not known here, there are none"))
            }
            Some((name, _)) => Err(format!(
                "parameter {name:?} is not known here, there are: {}",
                known.join(", ")
            )),
        }
    }

    /// The value of a parameter that is given once at most.
    pub(super) fn one<'b>(&'b self, name: &'b str) -> Result<Option<&'b str>, String> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(format!("parameter {name:?} is given more than once")),
        }
    }

    /// All values of a parameter.
    pub(super) fn all<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b str> {
        self.0
            .iter()
            .filter(move |(own, _)| own == name)
            .map(|(_, value)| &**value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_unknown_ones_refused() {
        let params = Params::parse("tag=a%3Db&tag=c+d&wait=5s", &["tag", "wait"]).unwrap();
        assert_eq!(params.all("tag").collect::<Vec<_>>(), ["a=b", "c d"]);
        assert_eq!(params.one("wait"), Ok(Some("5s")));
        assert_eq!(params.one("index"), Ok(None));
        assert_eq!(
            params.one("tag").unwrap_err(),
            "parameter \"tag\" is given more than once"
        );
        assert_eq!(
            Params::parse("stauts=alive", &["status", "tag"]).unwrap_err(),
            "parameter \"stauts\" is not known here, there are: status, tag"
        );
        assert_eq!(
            Params::parse("x=1", &[]).unwrap_err(),
            "parameter \"x\" is not known here, there are none"
        );
        assert!(Params::parse("", &[]).is_ok());
    }
}
